"""The whole daemon as a process of its own, between real servers of other makes and a real receiver."""
