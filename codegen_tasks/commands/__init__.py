"""doit commands, one file each."""
