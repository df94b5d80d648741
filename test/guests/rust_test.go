package guests_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestRustSDK runs the tests of the Rust crate itself, and of its documentation, where there is a
// cargo.
func TestRustSDK(t *testing.T) {
	t.Parallel()
	cargo, err := exec.LookPath("cargo")
	if err != nil {
		t.Skip("NOT RUN: cargo is not here: apt-get install cargo")
	}
	test := exec.CommandContext(t.Context(), cargo, "test", "--offline", "--locked", "--quiet")
	test.Dir = filepath.Join(root, "sdk/rust")
	test.Env = append(os.Environ(), "CARGO_TARGET_DIR="+t.TempDir())
	if text, err := test.CombinedOutput(); err != nil {
		t.Errorf("cargo test: %v\n%s", err, text)
	}
}
