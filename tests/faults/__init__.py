"""The fault suite: scenarios that break things amid work, and a checker that decides."""
