"""Processes that train together: nobody else knows of them."""
