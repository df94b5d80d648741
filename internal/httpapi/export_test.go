package httpapi

import (
	"net/http"

	"sallyport/api"
	"sallyport/internal/ident"
)

// Limits that tests reach for.
const (
	MaxWaiting      = maxWaiting
	MaxApplying     = maxApplying
	MaxApplyingEach = maxApplyingEach
	MaxMemory       = maxMemory
	MaxBundleBytes  = maxBundleBytes
	MaxSmallBody    = maxSmallBody
	MaxQueryBytes   = maxQueryBytes
	MaxScanned      = maxScanned
	MaxInvocation   = maxInvocation
	RecheckEvery    = recheckEvery
)

// Route is a row of the table of routes.
type Route struct {
	Method, Path, Action string
	Query                []string
}

// Routes returns the table.
func Routes() []Route {
	var out []Route
	for _, r := range routes() {
		out = append(out, Route{Method: r.method, Path: r.path, Action: string(r.action), Query: r.query})
	}
	return out
}

// Query is a parsed query.
type Query = query

// ParseQuery is parseQuery.
func ParseQuery(raw string, known []string) (Query, error) { return parseQuery(raw, known) }

// MakeCursor is makeCursor.
func MakeCursor(ns ident.Namespace, q Query, pos ident.Position) string {
	return makeCursor(ns, q, pos)
}

// ReadCursor is readCursor.
func ReadCursor(ns ident.Namespace, q Query) (ident.Position, error) { return readCursor(ns, q) }

// Traceparent is traceparent.
func Traceparent(r *http.Request) string { return traceparent(r) }

// AppendReceipts is appendReceipts.
func AppendReceipts(dst []byte, receipts []api.Receipt) []byte { return appendReceipts(dst, receipts) }

// Idle reports whether no request, wait, application or body is counted any more.
func (a *API) Idle() bool {
	a.waits.mu.Lock()
	defer a.waits.mu.Unlock()
	return a.active.Load() == 0 && a.applying.taken() == 0 && a.memory.Load() == 0 && len(a.waits.cancels) == 0
}
