package keyring

// Use makes the current key of s appear to have sealed so much already.
func (s *Sealer) Use(records, bytes int64) {
	seg := s.current.Load()
	seg.records.Add(records)
	seg.bytes.Add(bytes)
}

// ParseRoot exposes parseRoot to the fuzz target.
func ParseRoot(text []byte) ([]byte, bool) {
	k, ok := parseRoot(text)
	return formatRoot(k), ok
}

// OpenWrapped opens a record with a wrapper of a fixed key, for the fuzz target.
func OpenWrapped(record []byte) error {
	w, err := newWrapper(key{}, levelSegment, place{ns: "default", purpose: "events"})
	if err != nil {
		return err
	}
	_, _, err = w.open(record)
	return err
}
