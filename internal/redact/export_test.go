package redact

// SetMost changes how many bytes of values a Live has at most.
func (l *Live) SetMost(n int) { l.most = n }
