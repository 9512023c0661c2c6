"""What the store is after kill -9, power cuts, refused system calls, damaged files and a full disk."""
