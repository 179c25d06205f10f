-- How far the label of each drive is known to have come: one that is behind is an old image of the drive.
CREATE TABLE drive_labels (
    drive BLOB PRIMARY KEY,
    counter INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
