"""Instructions on emulated ARM CPUs."""
