package manifest

// SQLGrant runs named statements on a database.
type SQLGrant struct{}

// sqlGrant reads a grant of kind sql, which this version does not have yet.
func (t *table) sqlGrant(*Grant) bool { return false }
