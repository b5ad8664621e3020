package manifests

import (
	"os"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/stretchr/testify/require"
)

// persist is how long a stopping process waits at most for pages in flight and for a store that is away, after its drain.
const persist = 10*time.Minute + 45*time.Second

// variables are the environment variables that a bifrost configuration names.
func variables(config string) []string {
	var names []string
	for _, match := range regexp.MustCompile(`(?m)^[^#\n]*\benv: (\w+)`).FindAllStringSubmatch(config, -1) {
		names = append(names, match[1])
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func duration(t *testing.T, text, otherwise string) time.Duration {
	t.Helper()
	if text == "" {
		text = otherwise
	}
	d, err := time.ParseDuration(text)
	require.NoError(t, err)
	return d
}

func TestTheReplicasOfTheComposeFileHaveAllThatTheirConfigurationAsksFor(t *testing.T) {
	config, err := os.ReadFile("../../deploy/compose.bifrost.yaml")
	require.NoError(t, err)
	names := variables(string(config))
	require.NotEmpty(t, names)

	env := []string{"BIFROST_KEY=k", "BIFROST_OPERATOR_TOKEN=t", "WORKFLOWS_KEY=w", "GRAPH_CLIENT_SECRET=s"}
	options, err := cli.NewProjectOptions([]string{"../../deploy/compose.yaml"}, cli.WithEnv(env))
	require.NoError(t, err)
	project, err := options.LoadProject(t.Context()) // strict: an unknown key is an error
	require.NoError(t, err)

	for _, name := range []string{"bifrost-1", "bifrost-2"} {
		service, err := project.GetService(name)
		require.NoError(t, err)
		for _, variable := range names {
			require.Contains(t, service.Environment, variable, name)
		}
		require.True(t, service.ReadOnly)
		require.Greater(t, time.Duration(*service.StopGracePeriod), 25*time.Second+persist, "the default drain and persisting")
		for _, port := range service.Ports {
			require.Equal(t, "127.0.0.1", port.HostIP, "nothing is published beyond this machine")
		}
	}
}
