"""The stages of chains, one kind in each module."""
