"""Small tables that all processes share, for what may be lost.

They are SQLite files beside the spool (`files`), or in the database that several nodes have in
common.  `forms` are their columns, `interfaces` what both promise.
"""
