package server

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/api"
	"sallyport/internal/access"
	"sallyport/internal/deploy"
	"sallyport/internal/event"
	"sallyport/internal/grant"
	"sallyport/internal/ident"
	"sallyport/internal/ingress"
	"sallyport/internal/outbound"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
	"sallyport/internal/redact"
	"sallyport/internal/secret"
)

const (
	// secretsBucket is where the secrets of a namespace are kept.
	secretsBucket = "secrets"
	// canaryEvent is the type of the events that a touched canary makes.
	canaryEvent ident.EventType = "sallyport.canary.touched"
	// maxTouches bounds the touches that wait to become events; the log has them all.
	maxTouches = 100
	// storeTimeout and maxStoreAnswer bound what is fetched from other stores of secrets.
	storeTimeout   = 10 * time.Second
	maxStoreAnswer = 1 << 20
	// maxCredential bounds a file with the credential for another store, in bytes.
	maxCredential = 16 << 10
	// rotationTime bounds the wait for one step of a rotation; a function's own timeout is shorter.
	rotationTime = 10 * time.Minute
)

// openSecrets opens the store of secrets.
func (s *server) openSecrets() error {
	outside, err := s.outsideStores()
	if err != nil {
		return err
	}
	s.touches = make(chan secret.Touch, maxTouches)
	s.secrets = secret.New(secret.Config{
		Open: func(ctx context.Context, ns ident.Namespace) (secret.Bucket, secret.Safe, error) {
			bucket, err := s.bucket(ctx, ns, secretsBucket)
			if err != nil {
				return nil, nil, err
			}
			safe, err := s.keys.Safe(ctx, ns, secretsBucket)
			return bucket, safe, err
		},
		Permit: s.permitSecret, Outside: outside, Touched: s.touched, Hidden: &s.hidden, Logger: s.log,
	})
	s.later(s.secrets.Close)
	return nil
}

// permitSecret asks the gate whether a function may use a secret or read its value. For the check of a grant it asks about
// whoever deploys it.
func (s *server) permitSecret(ctx context.Context, use grant.Use, ns ident.Namespace, name string, reveal bool) error {
	if use.Check {
		p := access.PrincipalOf(ctx)
		if p == nil {
			return problem.New(problem.Denied, "access.denied", "nobody is known to deploy the function")
		}
		return s.guard.Authorize(ctx, p, policy.UseSecret, policy.Resource{Kind: policy.KindSecret, Namespace: ns, Name: name})
	}
	f, err := s.deployer.State(ns).Function(use.Caller.Function)
	if err != nil {
		return err
	}
	p := access.FunctionPrincipal(ns, f.Name, f.Revision, f.Publishes).WithSecrets(secretNames(f.Secrets), secretNames(f.Reveals))
	action := policy.UseSecret
	if reveal {
		action = policy.RevealSecret
	}
	return s.guard.Authorize(ctx, p, action, policy.Resource{Kind: policy.KindSecret, Namespace: ns, Name: name})
}

func secretNames(refs []ident.SecretRef) []string {
	out := make([]string, len(refs))
	for i, r := range refs {
		out[i] = r.Secret()
	}
	return out
}

// checkSecrets returns why functions must not be deployed: a secret is not there. Whether who deploys them may use it was asked with their
// grants.
func (s *server) checkSecrets(ctx context.Context, ns ident.Namespace, functions []*deploy.Function) error {
	var faults []problem.Fault
	var first string
	for _, f := range functions {
		missing, err := s.secrets.Missing(ctx, ns, append(append([]ident.SecretRef(nil), f.Secrets...), f.Reveals...))
		if err != nil {
			return err
		}
		for _, r := range missing {
			if first == "" {
				first = r.Name
			}
			faults = append(faults, problem.Fault{File: "app.toml", Detail: fmt.Sprintf("function %q uses %s, which does not exist", f.Name, r)})
		}
	}
	if len(faults) == 0 {
		return nil
	}
	return problem.New(problem.Unprocessable, "secret.missing", "the app uses a secret that does not exist in namespace %q", ns).
		WithHint("set it, and apply again: sallyport secret set %s -n %s --file FILE", first, ns).WithFaults(faults...)
}

// checkText returns why a text of people must not be taken in a namespace: it holds the value of a secret. A namespace that is not there has none, and is not
// made by looking.
func (s *server) checkText(ctx context.Context, ns ident.Namespace, file string, text []byte) error {
	if !s.registry.Exists(ns) {
		return nil
	}
	return s.secrets.CheckText(ctx, ns, file, text)
}

// hide takes the values of the secrets of a namespace out of an error about what people sent.
func (s *server) hide(ctx context.Context, ns ident.Namespace, err error) error {
	if !s.registry.Exists(ns) {
		return err
	}
	return s.secrets.Hide(ctx, ns, err)
}

// redactor returns what takes the secrets of a function out of what it says; nil for one without.
func (s *server) redactor(ns ident.Namespace) func(ctx context.Context, f *deploy.Function) (*redact.Set, error) {
	return func(ctx context.Context, f *deploy.Function) (*redact.Set, error) {
		if len(f.Secrets)+len(f.Reveals) == 0 {
			return nil, nil
		}
		return s.secrets.Redactor(ctx, ns, append(append([]ident.SecretRef(nil), f.Secrets...), f.Reveals...))
	}
}

// touched counts a touch of a canary, and has it become an event.
func (s *server) touched(t secret.Touch) {
	s.metrics.CanaryTouched(string(t.Namespace))
	select {
	case s.touches <- t:
	default: // the log has it
	}
}

// tellTouches publishes an event for each touch of a canary until ctx ends.
func (s *server) tellTouches(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case t := <-s.touches:
			if err := s.tellTouch(ctx, &t); err != nil && ctx.Err() == nil {
				s.log.Error("publish the event of a touched canary", "namespace", string(t.Namespace), "secret", string(t.Name), "error", err)
			}
		}
	}
}

// canaryData is the data of the event of a touched canary.
type canaryData struct {
	Secret    string `json:"secret"`
	Function  string `json:"function,omitempty"`
	Revision  int    `json:"revision,omitempty"`
	Grant     string `json:"grant,omitempty"`
	EventID   string `json:"event_id,omitempty"`
	Principal string `json:"principal,omitempty"`
	Denied    bool   `json:"denied,omitempty"`
}

func (s *server) tellTouch(ctx context.Context, t *secret.Touch) error {
	c := &t.Use.Caller
	data, err := json.Marshal(&canaryData{
		Secret: string(t.Name), Function: string(c.Function), Revision: c.Revision, Grant: c.Grant, EventID: t.EventID(),
		Principal: string(t.Principal), Denied: t.Denied,
	})
	if err != nil {
		return err
	}
	_, err = s.spaces.intake.Accept(ctx, access.ServerPrincipal(t.Namespace, "secrets"), t.Namespace, []event.Event{ownEvent(canaryEvent, data)}, ingress.Options{})
	return err
}

// ownEvent returns an event of the server's own.
func ownEvent(typ ident.EventType, data []byte) event.Event {
	return event.Event{
		ID: rand.Text(), Source: "/sallyport/secrets", Type: typ, Time: time.Now().UTC(), DataContentType: "application/json", Data: data, DataKind: event.DataJSON,
	}
}

// invokeRotation has a function make a step of a rotation. It is an event on the road that every event takes.
func (s *server) invokeRotation(ctx context.Context, ns ident.Namespace, fn ident.FunctionName, data []byte) ([]byte, error) {
	sp, err := s.spaces.get(ns)
	if err != nil {
		return nil, err
	}
	receipts, err := s.spaces.intake.Accept(ctx, access.ServerPrincipal(ns, "secrets"), ns, []event.Event{ownEvent(secret.RotationEvent, data)}, ingress.Options{Target: fn})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, rotationTime)
	defer cancel()
	state, reply, err := sp.Dispatch.Await(ctx, ident.Position(receipts[0].Position))
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return nil, problem.New(problem.Timeout, "secret.rotation_failed", "the function %s did not end", fn)
	case err != nil:
		return nil, err
	case reply != nil && reply.Problem != nil:
		return nil, reply.Problem
	case reply == nil && state == api.StateDead:
		return nil, problem.New(problem.FunctionFailed, "secret.rotation_failed", "the function %s failed", fn)
	case reply == nil:
		return nil, nil
	}
	return reply.Value, nil
}

// outsideStores makes what reads secrets from the other stores of the settings.
func (s *server) outsideStores() (*secret.Outside, error) {
	var sources []secret.Source
	for i := range s.cfg.Settings.SecretStores {
		m := &s.cfg.Settings.SecretStores[i]
		cfg := outbound.Config{Private: m.Private, Timeout: storeTimeout, MaxBytes: maxStoreAnswer}
		if m.CAFile != "" {
			certs, err := readCertificates(m.CAFile)
			if err != nil {
				return nil, err
			}
			cfg.RootCAs = x509.NewCertPool()
			for _, c := range certs {
				cfg.RootCAs.AddCert(c)
			}
		}
		client, err := outbound.New(cfg)
		if err != nil {
			return nil, err
		}
		s.later(func() error { client.Close(); return nil })
		sources = append(sources, secret.Source{
			Kind: m.Kind, Namespace: m.Namespace, URL: strings.TrimSuffix(m.URL, "/"), Prefix: m.Prefix, Token: credentialFile(m.TokenFile),
			TokenURL: m.TokenURL, ClientID: m.ClientID, ClientSecret: credentialFile(m.ClientSecretFile), VaultNamespace: m.VaultNamespace, TTL: m.TTL,
			Client: client,
		})
	}
	return secret.NewOutside(sources, s.log)
}

// credentialFile reads a file anew each time: an agent may renew what is in it.
func credentialFile(path string) func() ([]byte, error) {
	return func() ([]byte, error) { return readBounded(path, maxCredential) }
}

var _ grant.Secrets = (*secret.Store)(nil)
