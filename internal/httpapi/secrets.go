package httpapi

import (
	"context"
	"io"
	"net/http"
	"slices"
	"time"

	"sallyport/api"
	"sallyport/internal/ident"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
	"sallyport/internal/secret"
)

// Secrets are the secrets of all namespaces; secret.Store are.
type Secrets interface {
	List(ctx context.Context, ns ident.Namespace) ([]secret.Secret, error)
	Get(ctx context.Context, ns ident.Namespace, name ident.SecretName) (*secret.Secret, error)
	Set(ctx context.Context, ns ident.Namespace, name ident.SecretName, value []byte, o secret.Setting) (*secret.Secret, error)
	Plant(ctx context.Context, ns ident.Namespace, name ident.SecretName, like string, o secret.Setting) (string, *secret.Secret, error)
	Link(ctx context.Context, ns ident.Namespace, name ident.SecretName, reference string, o secret.Setting) (*secret.Secret, error)
	Promote(ctx context.Context, ns ident.Namespace, name ident.SecretName, n int, grace time.Duration) (*secret.Secret, error)
	Disable(ctx context.Context, ns ident.Namespace, name ident.SecretName, n int) (*secret.Secret, error)
	Destroy(ctx context.Context, ns ident.Namespace, name ident.SecretName, n int) (*secret.Secret, error)
	Plan(ctx context.Context, ns ident.Namespace, name ident.SecretName, p secret.Plan) (*secret.Secret, error)
	Uses(ctx context.Context, ns ident.Namespace, name ident.SecretName) ([]secret.Use, error)
	TouchedByHand(ctx context.Context, ns ident.Namespace, name ident.SecretName, by ident.PrincipalID)
}

// secretName reads the secret that a path names, and asks the guard. What is not there is asked about like what is.
func (a *API) secretName(c *call, action policy.Action) (ident.SecretName, error) {
	name, err := ident.ParseSecretName(c.r.PathValue("name"))
	if err != nil {
		return "", badRequest("%v", err)
	}
	res := policy.Resource{Kind: policy.KindSecret, Namespace: c.ns, Name: string(name)}
	if err := a.deps.Guard.Authorize(c.r.Context(), c.p, action, res); err != nil {
		return "", err
	}
	_, err = a.space(c) // the namespace exists
	return name, err
}

func (a *API) listSecrets(c *call) error {
	if _, err := a.space(c); err != nil {
		return err
	}
	list, err := a.deps.Secrets.List(c.r.Context(), c.ns)
	if err != nil {
		return err
	}
	out := api.SecretList{Secrets: []api.Secret{}}
	seen := a.crossings(c, policy.ReadSecretMetadata, policy.KindSecret)
	for i := range list {
		if !seen.may(string(list[i].Name)) {
			continue // it is inside a perimeter
		}
		out.Secrets = append(out.Secrets, a.describeSecret(c, &list[i]))
	}
	return answer(c, http.StatusOK, &out)
}

func (a *API) getSecret(c *call) error {
	name, err := a.secretName(c, policy.ReadSecretMetadata)
	if err != nil {
		return err
	}
	s, err := a.deps.Secrets.Get(c.r.Context(), c.ns, name)
	return a.answerSecret(c, s, err)
}

func (a *API) answerSecret(c *call, s *secret.Secret, err error) error {
	if err != nil {
		return err
	}
	out := a.describeSecret(c, s)
	return answer(c, http.StatusOK, &out)
}

func (a *API) describeSecret(c *call, s *secret.Secret) api.Secret {
	out := api.Secret{
		Name: string(s.Name), Description: s.Description, Created: s.Created, CreatedBy: string(s.By), Canary: s.Canary, Reference: s.Reference,
		Current: s.Current, Previous: s.Previous, PreviousUntil: moment(s.PreviousUntil), Pending: s.Pending, LastUsed: moment(s.LastUsed),
	}
	for _, f := range a.usersOf(c.ns, s.Name) {
		out.UsedBy = append(out.UsedBy, string(f))
	}
	if r := s.Rotation; r != nil {
		out.Rotation = &api.SecretRotation{
			Function: string(r.Function), Creates: r.Creates, Grace: r.Grace.String(), Next: moment(r.Next), Step: string(r.Step),
			Started: moment(r.Started), Ended: moment(r.Ended), Error: r.Error,
		}
		if r.Every > 0 {
			out.Rotation.Every = r.Every.String()
		}
	}
	return out
}

// usersOf returns the functions whose grants name a secret.
func (a *API) usersOf(ns ident.Namespace, name ident.SecretName) (out []ident.FunctionName) {
	for _, f := range a.deps.Deployer.State(ns).Functions {
		is := func(r ident.SecretRef) bool { return r.Own() && r.Name == string(name) }
		if slices.ContainsFunc(f.Secrets, is) || slices.ContainsFunc(f.Reveals, is) {
			out = append(out, f.Name)
		}
	}
	slices.Sort(out)
	return out
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// setSecret makes the body a new version of a secret.
func (a *API) setSecret(c *call) error {
	name, err := a.secretName(c, policy.SetSecret)
	if err != nil {
		return err
	}
	o := secret.Setting{By: c.p.ID, Description: c.query["description"]}
	if o.Pending, err = c.query.flag("pending"); err != nil {
		return err
	}
	if o.Grace, err = grace(c.query["grace"]); err != nil {
		return err
	}
	if err := plainBody(c.r, secret.MaxValue); err != nil {
		return err
	}
	// A body of its own, not one of the pool: it is cleared, and nothing else ever holds it.
	value := make([]byte, secret.MaxValue+1)
	defer clear(value)
	n, err := io.ReadFull(c.r.Body, value)
	switch {
	case err == nil:
		return bodyTooLarge(secret.MaxValue)
	case err != io.EOF && err != io.ErrUnexpectedEOF: //nolint:errorlint // io.ReadFull documents these two
		return unreadable(err)
	}
	a.deps.Secrets.TouchedByHand(c.r.Context(), c.ns, name, c.p.ID)
	s, err := a.deps.Secrets.Set(c.r.Context(), c.ns, name, value[:n], o)
	return a.answerSecret(c, s, err)
}

func grace(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, badRequest("grace: want a duration, such as 1h")
	}
	return d, nil
}

func (a *API) plantCanary(c *call) error {
	name, err := a.secretName(c, policy.SetSecret)
	if err != nil {
		return err
	}
	var req api.SecretCanaryRequest
	if err := readJSON(c.r, maxSmallBody, &req); err != nil {
		return err
	}
	decoy, s, err := a.deps.Secrets.Plant(c.r.Context(), c.ns, name, req.Like, secret.Setting{By: c.p.ID, Description: req.Description})
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, &api.SecretCanary{Secret: a.describeSecret(c, s), Decoy: decoy})
}

func (a *API) linkSecret(c *call) error {
	name, err := a.secretName(c, policy.SetSecret)
	if err != nil {
		return err
	}
	var req api.SecretLinkRequest
	if err := readJSON(c.r, maxSmallBody, &req); err != nil {
		return err
	}
	s, err := a.deps.Secrets.Link(c.r.Context(), c.ns, name, req.Reference, secret.Setting{By: c.p.ID, Description: req.Description})
	return a.answerSecret(c, s, err)
}

func (a *API) secretVersions(c *call) error {
	name, err := a.secretName(c, policy.ReadSecretMetadata)
	if err != nil {
		return err
	}
	s, err := a.deps.Secrets.Get(c.r.Context(), c.ns, name)
	return answerVersions(c, s, err)
}

func answerVersions(c *call, s *secret.Secret, err error) error {
	if err != nil {
		return err
	}
	out := api.SecretVersionList{Versions: []api.SecretVersion{}}
	if s != nil {
		for i := len(s.Versions) - 1; i >= 0; i-- {
			v := &s.Versions[i]
			out.Versions = append(out.Versions, api.SecretVersion{
				Version: v.Number, State: string(v.State), Origin: v.Origin, Created: v.Created, CreatedBy: string(v.By), Size: v.Size, Destroyed: v.Destroyed,
			})
		}
	}
	return answer(c, http.StatusOK, &out)
}

func (a *API) secretLog(c *call) error {
	name, err := a.secretName(c, policy.ReadSecretMetadata)
	if err != nil {
		return err
	}
	list, err := a.deps.Secrets.Uses(c.r.Context(), c.ns, name)
	if err != nil {
		return err
	}
	out := api.SecretUseList{Uses: []api.SecretUse{}}
	for i := range list {
		u := &list[i]
		out.Uses = append(out.Uses, api.SecretUse{
			First: u.First, Last: u.Last, Count: u.Count, Kind: string(u.Kind), Version: u.Version, Function: string(u.Function), Revision: u.Revision,
			Grant: u.Grant, EventID: u.EventID, Principal: string(u.Principal),
		})
	}
	return answer(c, http.StatusOK, &out)
}

// secretVersion reads a request about a version.
func (a *API) secretVersion(c *call, action policy.Action) (name ident.SecretName, req api.SecretVersionRequest, err error) {
	if name, err = a.secretName(c, action); err != nil {
		return name, req, err
	}
	err = readJSON(c.r, maxSmallBody, &req)
	return name, req, err
}

func (a *API) promoteSecret(c *call) error {
	name, req, err := a.secretVersion(c, policy.SetSecret)
	if err != nil {
		return err
	}
	d, err := grace(req.Grace)
	if err != nil {
		return err
	}
	s, err := a.deps.Secrets.Promote(c.r.Context(), c.ns, name, req.Version, d)
	return a.answerSecret(c, s, err)
}

func (a *API) disableSecret(c *call) error {
	name, req, err := a.secretVersion(c, policy.SetSecret)
	if err != nil {
		return err
	}
	s, err := a.deps.Secrets.Disable(c.r.Context(), c.ns, name, req.Version)
	return a.answerSecret(c, s, err)
}

// destroySecret destroys a version, or all. What deployed functions use is destroyed only by force.
func (a *API) destroySecret(c *call) error {
	name, req, err := a.secretVersion(c, policy.DestroySecret)
	if err != nil {
		return err
	}
	s, err := a.deps.Secrets.Get(c.r.Context(), c.ns, name)
	if err != nil {
		return err
	}
	users := a.usersOf(c.ns, name)
	if (req.Version == 0 || req.Version == s.Current) && len(users) > 0 && !req.Force {
		return problem.New(problem.Conflict, "secret.in_use", "the secret %q is used by the function %s, which would fail without it", name, users[0]).
			WithHint("bring another version into force first, or add --force")
	}
	s, err = a.deps.Secrets.Destroy(c.r.Context(), c.ns, name, req.Version)
	return answerVersions(c, s, err)
}

func (a *API) rotateSecret(c *call) error {
	name, err := a.secretName(c, policy.RotateSecret)
	if err != nil {
		return err
	}
	var req api.SecretRotationRequest
	if err := readJSON(c.r, maxSmallBody, &req); err != nil {
		return err
	}
	p := secret.Plan{Creates: req.Creates, Off: req.Off, Now: req.Now, By: c.p.ID}
	if p.Grace, err = grace(req.Grace); err != nil {
		return err
	}
	if req.Every != "" {
		if p.Every, err = time.ParseDuration(req.Every); err != nil {
			return badRequest("every: want a duration, such as 720h")
		}
	}
	if req.Function != "" {
		if p.Function, err = ident.ParseFunctionName(req.Function); err != nil {
			return badRequest("%v", err)
		}
		if _, err := a.deps.Deployer.State(c.ns).Function(p.Function); err != nil {
			return err
		}
		// Who has a function called must be permitted to call it.
		res := policy.Resource{Kind: policy.KindFunction, Namespace: c.ns, Name: req.Function}
		if err := a.deps.Guard.Authorize(c.r.Context(), c.p, policy.Invoke, res); err != nil {
			return err
		}
	}
	s, err := a.deps.Secrets.Plan(c.r.Context(), c.ns, name, p)
	if err == nil && p.Now && a.deps.Rotate != nil {
		a.deps.Rotate()
	}
	return a.answerSecret(c, s, err)
}

func secretNames(refs []ident.SecretRef) []string {
	out := make([]string, len(refs))
	for i, r := range refs {
		out[i] = r.Secret()
	}
	return out
}
