"""The search for the variant that pays."""
