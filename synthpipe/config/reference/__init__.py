"""The option reference: every option of every schema, as a page for a terminal, as a guide, as schemas for editors."""
