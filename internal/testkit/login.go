package testkit

import "net/http"

// login is the state of the log-ins at an issuer.
type login struct{}

func newLogin() login { return login{} }

func (i *Issuer) serveLogin(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }
