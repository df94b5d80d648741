package testkit

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
)

// ClientID is the program that may log people in at an Issuer.
const ClientID = "sallyport-cli"

// login is the state of the log-ins at an issuer. Whoever comes is ada, of the team, and agrees to everything.
type login struct {
	codes     map[string]url.Values // authorization codes, with what was asked
	devices   map[string]int        // device codes, and how often they were polled
	refreshes map[string]bool
	life      int
	claims    map[string]any
}

func newLogin() login {
	return login{
		codes: map[string]url.Values{}, devices: map[string]int{}, refreshes: map[string]bool{}, life: 300,
		claims: map[string]any{"groups": []string{"shop-team"}},
	}
}

// Lifetime sets how long, in seconds, tokens live that the issuer gives from now on.
func (i *Issuer) Lifetime(seconds int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.login.life = seconds
}

// EndSessions has the issuer refuse all refresh tokens.
func (i *Issuer) EndSessions() {
	i.mu.Lock()
	defer i.mu.Unlock()
	clear(i.login.refreshes)
}

func (i *Issuer) serveLogin(w http.ResponseWriter, r *http.Request) {
	switch r.Method + " " + r.URL.Path {
	case "GET /authorize":
		i.authorize(w, r)
	case "POST /device":
		code := rand.Text()
		i.login.devices[code] = 0
		reply(w, http.StatusOK, map[string]any{"device_code": code, "user_code": "WDJB-MJHT", "verification_uri": i.URL + "/activate", "interval": 1})
	case "POST /token":
		i.grant(w, r)
	case "POST /revoke":
		delete(i.login.refreshes, r.PostFormValue("token"))
		w.WriteHeader(http.StatusOK)
	default:
		http.NotFound(w, r)
	}
}

func (i *Issuer) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	redirect, err := url.Parse(q.Get("redirect_uri"))
	if err != nil || redirect.Scheme != "http" || redirect.Hostname() != "127.0.0.1" || q.Get("client_id") != ClientID || q.Get("response_type") != "code" ||
		q.Get("code_challenge_method") != "S256" || q.Get("code_challenge") == "" || len(q.Get("state")) < 32 || !strings.Contains(q.Get("scope"), "openid") {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	code := rand.Text()
	i.login.codes[code] = q
	redirect.RawQuery = url.Values{"code": {code}, "state": {q.Get("state")}, "iss": {i.URL}}.Encode()
	http.Redirect(w, r, redirect.String(), http.StatusFound)
}

func (i *Issuer) grant(w http.ResponseWriter, r *http.Request) {
	refuse := func(code string) { reply(w, http.StatusBadRequest, map[string]any{"error": code}) }
	if r.PostFormValue("client_id") != ClientID {
		refuse("invalid_client")
		return
	}
	switch r.PostFormValue("grant_type") {
	case "authorization_code":
		asked := i.login.codes[r.PostFormValue("code")]
		delete(i.login.codes, r.PostFormValue("code"))
		sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
		if asked == nil || asked.Get("code_challenge") != base64.RawURLEncoding.EncodeToString(sum[:]) || asked.Get("redirect_uri") != r.PostFormValue("redirect_uri") {
			refuse("invalid_grant")
			return
		}
	case "urn:ietf:params:oauth:grant-type:device_code":
		polled, ok := i.login.devices[r.PostFormValue("device_code")]
		if !ok {
			refuse("expired_token")
			return
		}
		if i.login.devices[r.PostFormValue("device_code")]++; polled == 0 {
			refuse("authorization_pending")
			return
		}
		delete(i.login.devices, r.PostFormValue("device_code"))
	case "refresh_token":
		if !i.login.refreshes[r.PostFormValue("refresh_token")] {
			refuse("invalid_grant")
			return
		}
		delete(i.login.refreshes, r.PostFormValue("refresh_token")) // each is good once
	default:
		refuse("unsupported_grant_type")
		return
	}
	refresh := rand.Text()
	i.login.refreshes[refresh] = true
	k := i.keys[len(i.keys)-3] // ES256
	token := Sign(k, map[string]any{"alg": k.Algorithm, "kid": k.ID, "typ": "at+jwt"}, i.Claims(i.login.claims))
	reply(w, http.StatusOK, map[string]any{"access_token": token, "token_type": "Bearer", "refresh_token": refresh, "expires_in": i.login.life})
}
