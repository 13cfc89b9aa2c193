// Holds the operators' resources that come in on standard input, as a JSON list, against their types, and says what does not fit.
import * as externalSecrets from "@kubernetes-models/external-secrets/external-secrets.io/v1";
import * as gateway from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1";
import * as keda from "@kubernetes-models/keda/keda.sh/v1alpha1";
import * as prometheus from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";

const groups = {
  "external-secrets.io/v1": externalSecrets,
  "gateway.networking.k8s.io/v1": gateway,
  "keda.sh/v1alpha1": keda,
  "monitoring.coreos.com/v1": prometheus,
};

let input = "";
for await (const chunk of process.stdin) input += chunk;

const wrong = [];
for (const { where, manifest } of JSON.parse(input)) {
  const Type = groups[manifest.apiVersion]?.[manifest.kind];
  if (!Type) {
    wrong.push(`${where}: there is no type ${manifest.apiVersion} ${manifest.kind}`);
    continue;
  }
  try {
    new Type(manifest).validate();
  } catch (error) {
    wrong.push(`${where}: ${error.message}`);
  }
}
console.log(JSON.stringify(wrong));
