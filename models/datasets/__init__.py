"""Importers of public formats, and the simulated marketplace. Each gives events; `importing` makes a recording of them."""
