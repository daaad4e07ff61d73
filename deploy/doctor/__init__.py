"""`cqrs doctor`: facts about a deployment (`facts`), how they are asked for, and what they mean."""
