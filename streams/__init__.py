"""The machinery that agents are built on. It knows no particular aggregate."""
