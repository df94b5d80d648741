package fault_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/internal/testkit"
)

// pair is somebody who applies an app with one more grant each time, and somebody else who approves it.
type pair struct {
	server   *testkit.Server
	dev, ann string // tokens
	// approved are the approvals whose answer was read, and waits the one that was answered and not approved yet.
	approved []string
	waits    string
	// gains is how many types the function publishes, as far as that was answered; deciding that an approval was asked for and not answered.
	gains    int
	deciding bool
	asks     chan struct{}
}

// ask returns what is answered to one of them, and false when nothing is: the server was killed.
func (p *pair) ask(ctx context.Context, t *testing.T, token, method, path string, body any, want int, out any) bool {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	a, err := p.server.Do(ctx, method, path, text, "Content-Type", "application/json", "Authorization", "Bearer "+token)
	if err != nil {
		return false
	}
	a.Decode(t, want, out)
	return true
}

const shopPath = "/v1/namespaces/shop"

// run goes on until a request has no answer.
func (p *pair) run(ctx context.Context, t *testing.T) {
	for {
		manifest := "name = \"shop\"\n[functions.pay]\nsource = \"pay.js\"\n"
		for n := range p.gains + 1 {
			manifest += fmt.Sprintf("[functions.pay.grants.g%d]\npublish = [\"order.t%d\"]\n", n, n)
		}
		bundle := &api.Bundle{Manifest: manifest, Modules: map[string]api.Module{"pay": {Kind: "script", Code: []byte("export default () => 1")}}, Schemas: map[string]string{}}
		var plan api.Plan
		p.asks <- struct{}{}
		if !p.ask(ctx, t, p.dev, "POST", shopPath+"/apps", bundle, http.StatusAccepted, &plan) {
			return
		}
		p.waits, p.deciding = plan.Approval.ID, true
		p.asks <- struct{}{}
		if !p.ask(ctx, t, p.ann, "POST", shopPath+"/approvals/"+p.waits+"/approve", api.ApprovalRequest{Digest: plan.Approval.Digest}, http.StatusOK, &api.Approval{}) {
			return
		}
		p.approved, p.waits, p.deciding = append(p.approved, p.waits), "", false
		p.gains++
	}
}

// check holds what is there to what was answered.
func (p *pair) check(t *testing.T) {
	t.Helper()
	var list api.ApprovalList
	p.ask(t.Context(), t, p.ann, "GET", shopPath+"/approvals", nil, http.StatusOK, &list)
	state := map[string]string{}
	for _, a := range list.Approvals {
		state[a.ID] = a.State
	}
	for _, id := range p.approved {
		if state[id] != api.ApprovalApproved {
			t.Errorf("the approval %s was given, and is %q", id, state[id])
		}
	}
	var functions api.FunctionList
	p.ask(t.Context(), t, p.ann, "GET", shopPath+"/functions", nil, http.StatusOK, &functions)
	active, approval := 0, ""
	if len(functions.Functions) > 0 {
		active, approval = len(functions.Functions[0].Publishes), functions.Functions[0].Approval.ID
	}
	switch {
	case p.waits != "" && state[p.waits] == api.ApprovalApproved && p.deciding && active == p.gains+1 && approval == p.waits:
		p.approved, p.gains = append(p.approved, p.waits), active
	case (p.waits == "" || state[p.waits] == api.ApprovalPending) && active == p.gains && (active == 0 || slices.Contains(p.approved, approval)):
	default:
		t.Errorf("the function publishes %d types by the approval %q; %d are approved, %q is %q", active, approval, p.gains, p.waits, state[p.waits])
	}
	p.waits, p.deciding = "", false
}

// TestKillDuringApproval kills the server while apps are applied and approved: what was answered is so afterwards, and what was not is one
// or the other, whole.
func TestKillDuringApproval(t *testing.T) {
	t.Parallel()
	dir, rnd := filepath.Join(t.TempDir(), "data"), random(t)
	p := &pair{}
	for cycle := range min(cycles(t), 3) {
		p.server = testkit.Start(t, testkit.Binary(t), dir)
		if cycle == 0 {
			p.ask(t.Context(), t, p.server.Token, "POST", "/v1/namespaces", api.NamespaceRequest{Name: "shop", Approvals: "gains"}, http.StatusCreated, &api.Namespace{})
			for _, who := range []struct {
				token *string
				role  string
			}{{&p.dev, "developer"}, {&p.ann, "operator"}} {
				var tok api.NewToken
				p.ask(t.Context(), t, p.server.Token, "POST", "/v1/tokens", api.TokenRequest{Role: who.role, Namespace: "shop"}, http.StatusCreated, &tok)
				*who.token = tok.Text
			}
		}
		p.check(t)
		p.asks = make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer close(p.asks)
			p.run(t.Context(), t)
		}()
		for left := 1 + rnd.IntN(8); left > 0; left-- {
			<-p.asks
		}
		time.Sleep(time.Duration(rnd.IntN(30_000)) * time.Microsecond) // the moment of the fault
		go func() {
			for range p.asks { // whoever asks on finds the server gone
			}
		}()
		p.server.Kill()
		<-done
		if t.Failed() {
			t.FailNow()
		}
	}
	p.server = testkit.Start(t, testkit.Binary(t), dir)
	p.check(t)
	if len(p.approved) < 2 {
		t.Errorf("only %d approvals: the test looks at nothing", len(p.approved))
	}
	t.Logf("%d approvals", len(p.approved))
}
