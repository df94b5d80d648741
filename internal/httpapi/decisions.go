package httpapi

import (
	"net/http"

	"sallyport/api"
	"sallyport/internal/access"
	"sallyport/internal/ident"
)

// decisions answers with what the gate decided in a period, in a namespace or about the server.
func (a *API) decisions(c *call) error {
	q := access.DecisionQuery{Namespace: c.ns, Principal: ident.PrincipalID(c.query["principal"])}
	var err error
	if q.Since, q.Until, err = c.query.period(); err != nil {
		return err
	}
	if q.Denied, err = c.query.flag("denied"); err != nil {
		return err
	}
	limit, err := c.query.limit()
	if err != nil {
		return err
	}
	if c.ns != "" {
		if _, err := a.space(c); err != nil {
			return err
		}
	}
	found := a.deps.Decisions.List(q)
	out := api.DecisionList{
		Since: q.Since.UTC(), Until: q.Until.UTC(), Decisions: []api.Decision{}, More: len(found) > limit,
	}
	for i := range found[:min(len(found), limit)] {
		out.Decisions = append(out.Decisions, describeDecision(&found[i]))
	}
	return answer(c, http.StatusOK, &out)
}

func describeDecision(d *access.Decided) api.Decision {
	return api.Decision{
		Principal: string(d.As.ID), Role: string(d.As.Role), Action: string(d.Action), Kind: string(d.Resource.Kind), Resource: d.Resource.Name,
		Allowed: d.Allowed, Policies: orEmpty(d.Policies), Bridges: d.Bridges, DryRun: d.DryRun, Count: d.Count, Last: d.Last,
	}
}
