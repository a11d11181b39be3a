"""How the rows of former versions were checked, and how they are carried over; see ``migrations``."""

__all__: list[str] = []
