package httpapi

import (
	"context"
	"net/http"

	"sallyport/api"
)

// Issuer is the server as an issuer of identity tokens for functions.
type Issuer interface {
	Status() *api.Issuer
	Rotate(ctx context.Context, how api.IssuerRotation) (*api.Issuer, error)
}

func (a *API) getIssuer(c *call) error {
	return answer(c, http.StatusOK, a.deps.Issuer.Status())
}

// rotateIssuer makes a new key.
func (a *API) rotateIssuer(c *call) error {
	var how api.IssuerRotation
	if err := readJSON(c.r, maxSmallBody, &how); err != nil {
		return err
	}
	out, err := a.deps.Issuer.Rotate(c.r.Context(), how)
	if err != nil {
		return err
	}
	a.deps.Logger.InfoContext(c.r.Context(), "the issuer has a new key", "revoked", out.Revoked, "principal", c.p.ID)
	return answer(c, http.StatusOK, out)
}
