package access

// The bounds that tests go past.
const (
	MaxTokens     = maxTokens
	MaxRemembered = maxRemembered
)
