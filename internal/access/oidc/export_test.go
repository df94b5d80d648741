package oidc

import "time"

// MaxWaiters is how many callers wait for one fetch.
const MaxWaiters = maxWaiters

// Forgive has the next unknown key of an issuer make a fetch, as if refreshPause had passed.
func (all Issuers) Forgive(url string) {
	k := all[url].keys
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lastTry = time.Time{}
}

// Fill takes all the room that there is for proofs.
func (p *Proofs) Fill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for n := range maxProofs {
		p.young[[32]byte{byte(n), byte(n >> 8), byte(n >> 16)}] = struct{}{}
	}
}

// VerifySignature checks a signature by a key as a token's is checked, when the key can sign so.
func VerifySignature(public any, algorithm, input string, signature []byte) bool {
	for _, a := range algorithmsOf(public) {
		if string(a) == algorithm {
			return verify(public, a, input, signature) == nil
		}
	}
	return false
}

// Algorithms returns how many algorithms a key can sign with.
func Algorithms(public any) int { return len(algorithmsOf(public)) }
