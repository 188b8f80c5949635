"""Options of the stages of a chain of degradations, one kind in each module."""
