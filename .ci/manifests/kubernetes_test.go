// Package manifests decodes what deploy/ ships with the types of the programs that will read it, strictly: an unknown or
// misplaced field is an error here, not a surprise in a cluster. It is a module of its own, so that the types of Kubernetes
// and Compose weigh on nobody who builds bifrost.
package manifests

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	sigyaml "sigs.k8s.io/yaml"
)

const folder = "../../deploy/kubernetes"

// manifests is what kubectl apply -k would send, by kind.
type manifests struct {
	Deployment appsv1.Deployment
	Budget     policyv1.PodDisruptionBudget
	ConfigMap  corev1.ConfigMap
	Services   []corev1.Service
}

// build runs the kustomization and decodes every document of its output.
func build(t *testing.T) manifests {
	t.Helper()
	objects, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	require.NoError(t, err)
	stream, err := objects.AsYaml()
	require.NoError(t, err)

	var all manifests
	for documents := yaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(stream))); ; {
		document := make([]byte, 1<<20)
		n, err := documents.Read(document)
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err)
		switch kind := decodeKind(t, document[:n]); kind {
		case "apps/v1 Deployment":
			strictly(t, document[:n], &all.Deployment)
		case "policy/v1 PodDisruptionBudget":
			strictly(t, document[:n], &all.Budget)
		case "v1 ConfigMap":
			strictly(t, document[:n], &all.ConfigMap)
		case "v1 Service":
			var service corev1.Service
			strictly(t, document[:n], &service)
			all.Services = append(all.Services, service)
		default:
			require.Fail(t, "no type for "+kind)
		}
	}
}

func decodeKind(t *testing.T, document []byte) string {
	t.Helper()
	var meta struct{ APIVersion, Kind, Namespace string }
	require.NoError(t, sigyaml.Unmarshal(document, &meta))
	require.Empty(t, meta.Namespace, "the namespace is the operator's choice")
	return meta.APIVersion + " " + meta.Kind
}

func strictly(t *testing.T, document []byte, into any) {
	t.Helper()
	require.NoError(t, sigyaml.UnmarshalStrict(document, into), "%s", document)
}

func TestTheManifestsBelongTogether(t *testing.T) {
	all := build(t)
	pod := all.Deployment.Spec.Template
	container := pod.Spec.Containers[0]

	ports := map[string]bool{}
	for _, port := range container.Ports {
		ports[port.Name] = true
	}
	require.Len(t, all.Services, 3)
	for _, service := range all.Services {
		require.Equal(t, pod.Labels, service.Spec.Selector, service.Name)
		for _, port := range service.Spec.Ports {
			require.True(t, ports[port.TargetPort.String()], "%s: no port %s in the pod", service.Name, port.TargetPort.String())
		}
	}
	require.Equal(t, pod.Labels, all.Deployment.Spec.Selector.MatchLabels)
	require.Equal(t, pod.Labels, all.Budget.Spec.Selector.MatchLabels)
	require.Less(t, all.Budget.Spec.MinAvailable.IntValue(), int(*all.Deployment.Spec.Replicas), "no node could ever be drained")

	require.Equal(t, all.ConfigMap.Name, pod.Spec.Volumes[0].ConfigMap.Name)
	require.Contains(t, all.ConfigMap.Data, "bifrost.yaml")
	require.Equal(t, "/etc/bifrost", container.VolumeMounts[0].MountPath)
	require.Contains(t, container.Args, "/etc/bifrost/bifrost.yaml")
}

func TestThePodIsNobodyAndCanDoNothing(t *testing.T) {
	pod := build(t).Deployment.Spec.Template.Spec
	require.True(t, *pod.SecurityContext.RunAsNonRoot)
	require.Equal(t, corev1.SeccompProfileTypeRuntimeDefault, pod.SecurityContext.SeccompProfile.Type)
	require.False(t, *pod.AutomountServiceAccountToken)
	context := pod.Containers[0].SecurityContext
	require.True(t, *context.ReadOnlyRootFilesystem)
	require.False(t, *context.AllowPrivilegeEscalation)
	require.Equal(t, []corev1.Capability{"ALL"}, context.Capabilities.Drop)
}

func TestAPodThatIsGoingHasTimeToFinish(t *testing.T) {
	all := build(t)
	var config struct {
		Proxy struct {
			DrainDelay   string `json:"drain_delay"`
			DrainTimeout string `json:"drain_timeout"`
		} `json:"proxy"`
	}
	require.NoError(t, sigyaml.Unmarshal([]byte(all.ConfigMap.Data["bifrost.yaml"]), &config))
	drain := duration(t, config.Proxy.DrainDelay, "0s") + duration(t, config.Proxy.DrainTimeout, "25s")
	require.Greater(t, float64(*all.Deployment.Spec.Template.Spec.TerminationGracePeriodSeconds), (drain + persist).Seconds())
}

func TestTheExampleSecretHoldsWhatTheConfigurationAsksFor(t *testing.T) {
	data, err := os.ReadFile(folder + "/secret.example.yaml")
	require.NoError(t, err)
	var secret corev1.Secret
	strictly(t, data, &secret)

	all := build(t)
	require.Equal(t, secret.Name, all.Deployment.Spec.Template.Spec.Containers[0].EnvFrom[0].SecretRef.Name)
	var names []string
	for name := range secret.StringData {
		names = append(names, name)
	}
	require.ElementsMatch(t, variables(all.ConfigMap.Data["bifrost.yaml"]), names)
}
