// A network asked forwards, backwards, and for its slopes: the equations of jaxnn, in double precision.

const ACTIVATIONS = {
  sigmoid: { low: 0, high: 1, f: (x) => 1 / (1 + Math.exp(-x)), slope: (y) => y * (1 - y), inverse: (y) => Math.log(y / (1 - y)) },
  tanh: { low: -1, high: 1, f: Math.tanh, slope: (y) => 1 - y * y, inverse: Math.atanh },
  identity: { low: -Infinity, high: Infinity, f: (x) => x, slope: () => 1, inverse: (y) => y },
};

// The numbers of an array, from their little-endian bytes in base64.
function floats(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

// A network as it stands in the page: {name, about, layers: [{inputs, outputs, kernel, bias, activation}]}.
function decode(written) {
  const layers = written.layers.map((layer) => ({
    ...layer,
    kernel: floats(layer.kernel),
    bias: layer.bias === null ? new Float32Array(layer.outputs) : floats(layer.bias),
  }));
  return { ...written, layers };
}

// What each layer answers, the inputs first.
function query(network, x) {
  const values = [Float64Array.from(x)];
  for (const { inputs, outputs, kernel, bias, activation } of network.layers) {
    const signal = Float64Array.from(bias);
    const below = values[values.length - 1];
    for (let i = 0; i < inputs; i++) {
      for (let k = 0; k < outputs; k++) signal[k] += below[i] * kernel[i * outputs + k];
    }
    values.push(signal.map(ACTIVATIONS[activation].f));
  }
  return values;
}

// A vector over the outputs of a layer, sent back through its transposed weights.
function transposed({ inputs, outputs, kernel }, vector) {
  const sums = new Float64Array(inputs);
  for (let i = 0; i < inputs; i++) {
    for (let k = 0; k < outputs; k++) sums[i] += kernel[i * outputs + k] * vector[k];
  }
  return sums;
}

function rescale(values, low, high) {
  const least = Math.min(...values), most = Math.max(...values);
  if (most === least) return values.map(() => (low + high) / 2);
  return values.map((v) => low + ((high - low) * (v - least)) / (most - least));
}

// The input that the transposed weights give for an output: in [margin, 1 - margin].
function backquery(network, y, margin = 0.01) {
  let value = Float64Array.from(y);
  for (let l = network.layers.length - 1; l >= 0; l--) {
    const { bias, activation } = network.layers[l];
    const signal = value.map((v, k) => ACTIVATIONS[activation].inverse(v) - bias[k]);
    const { low, high } = l > 0 ? ACTIVATIONS[network.layers[l - 1].activation] : { low: 0, high: 1 };
    const back = transposed(network.layers[l], signal);
    const inset = margin * (high - low);
    value = Number.isFinite(inset) ? rescale(back, low + inset, high - inset) : back;
  }
  return value;
}

// The slope of one output in each input, from what `query` gave.
function saliency(network, values, target) {
  let slopes = new Float64Array(values[values.length - 1].length);
  slopes[target] = 1;
  for (let l = network.layers.length - 1; l >= 0; l--) {
    const { slope } = ACTIVATIONS[network.layers[l].activation];
    slopes = transposed(network.layers[l], slopes.map((s, k) => s * slope(values[l + 1][k])));
  }
  return slopes;
}
