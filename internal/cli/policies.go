package cli

import "github.com/spf13/cobra"

func (a *app) policyCommand() *cobra.Command {
	return group("policy", "Check and test policies", a.policySchema(), a.policyValidate(), a.policyTest())
}
