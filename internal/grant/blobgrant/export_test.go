package blobgrant

// Reparse reads the stored form of an object and returns its own, for the fuzz target.
func Reparse(b []byte) ([]byte, bool) {
	o, err := parseObject(b)
	if err != nil {
		return nil, false
	}
	return o.append(nil), true
}
