"""The commands on a store, each as a technician runs it."""
