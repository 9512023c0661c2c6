"""The contracts of the systems that the gateway replaces: translations, each on a listener of its own."""
