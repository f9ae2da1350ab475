// Command pulumi-resource-aws is the AWS plugin of the lab: HashiCorp's binary AWS provider behind Pulumi's Terraform
// bridge, with the names and the version of the pulumi-aws package that the program imports.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/pulumi/pulumi-terraform-bridge/v3/dynamic/internal/shim/run"
	"github.com/pulumi/pulumi-terraform-bridge/v3/pkg/pf/proto"
	pf "github.com/pulumi/pulumi-terraform-bridge/v3/pkg/pf/tfbridge"
	"github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfbridge"
	shim "github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfshim"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
	"github.com/pulumi/pulumi/sdk/v3/go/common/util/cmdutil"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi/provider"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
)

const terraformProvider = "registry.terraform.io/hashicorp/aws"

// Set by the linker from lab/versions.py: HashiCorp's release, and the release of pulumi-aws that it replaces.
var (
	terraformVersion string
	pulumiVersion    string
)

//go:embed tokens.json
var tokensJSON []byte

// tokenTable maps Terraform types to Pulumi tokens. Other types cannot be used.
type tokenTable struct {
	Resources   map[string]tokens.Type
	DataSources map[string]tokens.ModuleMember
}

func main() {
	if err := serve(context.Background()); err != nil {
		cmdutil.ExitError(err.Error())
	}
}

func serve(ctx context.Context) error {
	var table tokenTable
	if err := json.Unmarshal(tokensJSON, &table); err != nil {
		return fmt.Errorf("tokens.json: %w", err)
	}
	terraform, err := run.NamedProvider(ctx, terraformProvider, terraformVersion)
	if err != nil {
		return fmt.Errorf("%s %s cannot be started (PULUMI_DYNAMIC_TF_PLUGIN_CACHE_DIR=%q): %w",
			terraformProvider, terraformVersion, os.Getenv("PULUMI_DYNAMIC_TF_PLUGIN_CACHE_DIR"), err)
	}
	defer terraform.Close() // a separate process, which would outlive this one
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		waitForEndOfParent()
	}()
	server, err := withPresentBlocks(ctx, terraform)
	if err != nil {
		return err
	}
	info := providerInfo(proto.New(ctx, server), table)
	metadata := pf.ProviderMetadata{PackageSchema: fmt.Appendf(nil, `{"name":"aws","version":%q}`, pulumiVersion)}
	return provider.MainContext(ctx, "aws", func(host *provider.HostClient) (pulumirpc.ResourceProviderServer, error) {
		server, err := pf.NewProviderServer(ctx, host, info, metadata)
		return &mappedTypes{ResourceProviderServer: server, known: table.tokens()}, err
	})
}

// waitForEndOfParent returns when the engine that started the plugin has ended, for any reason.
func waitForEndOfParent() {
	for parent := os.Getppid(); os.Getppid() == parent; {
		time.Sleep(time.Second)
	}
}

func (table tokenTable) tokens() map[string]bool {
	known := map[string]bool{}
	for _, token := range table.Resources {
		known[string(token)] = true
	}
	for _, token := range table.DataSources {
		known[string(token)] = true
	}
	return known
}

func providerInfo(terraform shim.Provider, table tokenTable) tfbridge.ProviderInfo {
	info := tfbridge.ProviderInfo{
		P:              terraform,
		Name:           "aws",
		ResourcePrefix: "aws",
		Version:        pulumiVersion,
		MetadataInfo:   &tfbridge.MetadataInfo{Data: tfbridge.ProviderMetadata(nil)},
		Config:         map[string]*tfbridge.SchemaInfo{"default_tags": {MaxItemsOne: tfbridge.True()}},
		Resources:      map[string]*tfbridge.ResourceInfo{},
		DataSources:    map[string]*tfbridge.DataSourceInfo{},
	}
	fields := resourceFields()
	for terraformType, token := range table.Resources {
		info.Resources[terraformType] = &tfbridge.ResourceInfo{Tok: token, Fields: fields[terraformType]}
	}
	for terraformType, token := range table.DataSources {
		info.DataSources[terraformType] = &tfbridge.DataSourceInfo{Tok: token}
	}
	for terraformType := range terraform.ResourcesMap().Range {
		if info.Resources[terraformType] == nil {
			info.IgnoreMappings = append(info.IgnoreMappings, terraformType)
		}
	}
	for terraformType := range terraform.DataSourcesMap().Range {
		if info.DataSources[terraformType] == nil {
			info.IgnoreMappings = append(info.IgnoreMappings, terraformType)
		}
	}
	info.SetAutonaming(255, "-")
	return info
}

// resourceFields lists where the published pulumi-aws package differs from the bridge's default rules: rules of a
// security group keep their singular names, a record's policies are lists, and generated names may be as long as AWS
// allows.
func resourceFields() map[string]map[string]*tfbridge.SchemaInfo {
	name := func(maxLength int) map[string]*tfbridge.SchemaInfo {
		return map[string]*tfbridge.SchemaInfo{"name": tfbridge.AutoName("name", maxLength, "-")}
	}
	list := func(name string) *tfbridge.SchemaInfo {
		return &tfbridge.SchemaInfo{Name: name, MaxItemsOne: tfbridge.False()}
	}
	return map[string]map[string]*tfbridge.SchemaInfo{
		"aws_default_security_group": {"ingress": {Name: "ingress"}, "egress": {Name: "egress"}},
		"aws_iam_instance_profile":   name(128),
		"aws_iam_role":               name(64),
		"aws_key_pair":               {"key_name": tfbridge.AutoName("keyName", 255, "-")},
		"aws_lb":                     name(32),
		"aws_lb_target_group":        name(32),
		"aws_route53_record": {
			"alias":                      list("aliases"),
			"failover_routing_policy":    list("failoverRoutingPolicies"),
			"geolocation_routing_policy": list("geolocationRoutingPolicies"),
			"latency_routing_policy":     list("latencyRoutingPolicies"),
			"weighted_routing_policy":    list("weightedRoutingPolicies"),
		},
		"aws_security_group": {
			"ingress":     {Name: "ingress"},
			"egress":      {Name: "egress"},
			"description": {Default: &tfbridge.DefaultInfo{Value: "Managed by Pulumi"}},
		},
	}
}

// mappedTypes rejects types that are not in the table before the bridge does, with a message about what to do.
type mappedTypes struct {
	pulumirpc.ResourceProviderServer
	known map[string]bool
}

func (server *mappedTypes) check(token string) error {
	if server.known[token] {
		return nil
	}
	return fmt.Errorf("the lab's AWS plugin does not know %s: add it under its Terraform type to "+
		"lab/engine/aws_provider/tokens.json; the plugin is rebuilt at the next start", token)
}

// Check is the engine's first call for any resource.
func (server *mappedTypes) Check(ctx context.Context, request *pulumirpc.CheckRequest) (*pulumirpc.CheckResponse, error) {
	if err := server.check(string(resource.URN(request.GetUrn()).Type())); err != nil {
		return nil, err
	}
	return server.ResourceProviderServer.Check(ctx, request)
}

func (server *mappedTypes) Invoke(ctx context.Context, request *pulumirpc.InvokeRequest) (*pulumirpc.InvokeResponse, error) {
	if err := server.check(request.GetTok()); err != nil {
		return nil, err
	}
	return server.ResourceProviderServer.Invoke(ctx, request)
}
