package config_test

import (
	"fmt"

	"github.com/bifrost-proxy/bifrost/config"
)

func ExampleLoad() {
	environment := func(name string) (string, bool) { return "the value of " + name, true }
	cfg, err := config.Load("testdata/minimal.yaml", environment)
	if err != nil {
		fmt.Println(err) // every problem, one a line
		return
	}
	graph := cfg.Integrations[0]
	fmt.Println(graph.Name, graph.Route, graph.ClientSecret)

	_, err = config.Load("testdata/bad/many.yaml", environment)
	for _, problem := range err.(config.Problems)[5:7] {
		fmt.Println(problem)
	}
	// Output:
	// Graph /graph [redacted]
	// testdata/bad/many.yaml:3: callerz: is an unknown key: did you mean callers?
	// testdata/bad/many.yaml:5: integrations.Graph.route: is missing: add it
}
