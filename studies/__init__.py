"""Test the central claims of the papers again, with equal data and equal updates for every arm."""
