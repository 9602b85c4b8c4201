"""How findings come about: rules and outside checkers, suppressions, fixes."""
