package manifest

// SecretGrant reads the value of a secret.
type SecretGrant struct{}

// secretGrant reads a grant of kind secret, which this version does not have yet.
func (t *table) secretGrant(*Grant) bool { return false }
