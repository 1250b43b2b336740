"""From proven variants to what ships: bundle, signature, wheel and offline kit."""
