"""Projecting events into the documents of views: followed, rebuilt, searched, waited for."""
