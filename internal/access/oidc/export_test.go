package oidc

import "time"

// Forgive has the next unknown key of an issuer make a fetch, as if refreshPause had passed.
func (all Issuers) Forgive(url string) {
	k := all[url].keys
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lastTry = time.Time{}
}
