package access

import "sallyport/internal/policy"

// The bounds that tests go past.
const (
	MaxTokens     = maxTokens
	MaxRemembered = maxRemembered

	MaxCallerStates = maxCallerStates
)

// MaxKeys is how many keys a limiter keeps.
const MaxKeys = rateShards * maxPerShard

// Kept returns how many addresses are kept.
func (i *Identifier) Kept() int {
	n := 0
	for s := range i.rates.addresses.shards {
		n += len(i.rates.addresses.shards[s].paid)
	}
	return n
}

// Identity returns what decisions about p are remembered by.
func (p *Principal) Identity() [32]byte { return p.identity }

// ParseAuthority reads what goes with an event of who sent it.
func ParseAuthority(s string) (name string, sent policy.Sent, known bool) { return parseAuthority(s) }
