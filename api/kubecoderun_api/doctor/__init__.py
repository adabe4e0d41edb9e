"""Checks the settings of a LibreChat against the front end that it is to use: `make doctor`.

`releases` knows what each generation of the client sends, `checks` decides over plain data, `probe` finds out
what the front end does, `report` prints.
"""
