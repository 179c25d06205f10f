-- A token may be for the node that takes the place of another one, which is removed with it.
ALTER TABLE join_tokens ADD COLUMN replaces INTEGER;
