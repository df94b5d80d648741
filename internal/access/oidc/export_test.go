package oidc

import "time"

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
