"""The fault suite: scenarios that break things under load, and then run `verify`."""
