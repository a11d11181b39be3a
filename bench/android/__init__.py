"""The app for phones: sizes, memory, and instructions on emulated processors."""
