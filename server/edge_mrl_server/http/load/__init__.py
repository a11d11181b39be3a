"""What keeps one tenant, device or stranger from taking what belongs to the others."""

__all__: list[str] = []
