package api

import "time"

// The states of an approval.
const (
	// ApprovalPending waits for a decision; the app as it was before runs.
	ApprovalPending = "pending"
	// ApprovalApproved was approved, and became active by it.
	ApprovalApproved = "approved"
	ApprovalRejected = "rejected"
	// ApprovalSuperseded made room for another apply of the app.
	ApprovalSuperseded = "superseded"
	// ApprovalStale is no comparison with what is active any more: the app changed in the meantime.
	ApprovalStale   = "stale"
	ApprovalExpired = "expired"
)

// Approval is an app that was applied and with which functions gain something, so that a second principal has to approve it before
// it becomes active.
type Approval struct {
	ID    string `json:"id"`
	App   string `json:"app"`
	State string `json:"state"`
	// Digest is of everything that is approved: the modules, the manifest, the schemas, the difference, which revision it is compared
	// with, and who applied it.
	Digest string `json:"digest"`
	// Base is the revision that it is compared with, 0 for an app that is new; Revision is what it would become or became.
	Base     int `json:"base_revision"`
	Revision int `json:"revision"`
	// Changes and Grants are the difference that was shown.
	Changes   []Change      `json:"changes"`
	Grants    []GrantChange `json:"grants"`
	AppliedBy string        `json:"applied_by"`
	Created   time.Time     `json:"created"`
	Expires   time.Time     `json:"expires"`
	// DecidedBy approved or rejected it, at Decided, because of Reason.
	DecidedBy string     `json:"decided_by,omitempty"`
	Decided   *time.Time `json:"decided,omitempty"`
	Reason    string     `json:"reason,omitempty"`
	// Supersedes is the approval of the same app that this one took the place of, and SupersededBy the one that took its place.
	Supersedes   string `json:"supersedes,omitempty"`
	SupersededBy string `json:"superseded_by,omitempty"`
}

// ApprovalList is the approvals of a namespace, the newest first.
type ApprovalList struct {
	Approvals []Approval `json:"approvals"`
}

// ApprovalRequest approves what was shown: Digest is that of the approval.
type ApprovalRequest struct {
	Digest string `json:"digest"`
	Reason string `json:"reason,omitempty"`
}

// RejectionRequest rejects an approval.
type RejectionRequest struct {
	Reason string `json:"reason,omitempty"`
}

// FunctionApproval says who approved what a function gained last.
type FunctionApproval struct {
	ID         string    `json:"id"`
	Digest     string    `json:"digest"`
	AppliedBy  string    `json:"applied_by"`
	ApprovedBy string    `json:"approved_by"`
	Approved   time.Time `json:"approved"`
	Reason     string    `json:"reason,omitempty"`
}
