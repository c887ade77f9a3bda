//! The product: what invoices call the credits beyond those that a plan includes. <https://docs.stripe.com/api/products>

use std::collections::HashMap;

use stripe_product::product::{CreateProduct, RetrieveProduct, UpdateProduct};
use stripe_shared::Product;

use super::super::report::{Problem, Verdict};
use super::super::stripe::Key;
use super::{Done, MARK, Site};

pub(super) async fn ensure(site: &Site<'_>) -> Result<Done, Problem> {
    let (id, name) = (site.config.credits_name(), site.config.product_name.trim());
    let done = |verdict, detail| Done { id: id.clone(), verdict, detail };
    let Some(product) = find(site, &id).await? else {
        site.change("is not there")?;
        let request = CreateProduct::new(name)
            .id(&id)
            .unit_label("credit")
            .metadata(HashMap::from([(MARK.to_owned(), site.config.prefix.clone())]));
        let made = site.make(&request, "", || find(site, &id)).await?;
        is_ours(site, &made)?;
        return Ok(done(Verdict::Made, format!("{name:?}")));
    };
    is_ours(site, &product)?;
    let mut differences = Vec::new();
    if product.name != name {
        differences.push(format!("its name was {:?}", product.name));
    }
    if !product.active {
        differences.push("it was archived".to_owned());
    }
    if differences.is_empty() {
        return Ok(done(Verdict::There, format!("{name:?}")));
    }
    let differences = differences.join(", ");
    site.change(&format!("{id}: {differences}"))?;
    let request = UpdateProduct::new(id.as_str()).name(name).active(true);
    site.stripe.send(&request, Key::Fresh).await?;
    Ok(done(Verdict::Changed, format!("{name:?}; {differences}")))
}

pub(super) async fn find(site: &Site<'_>, id: &str) -> Result<Option<Product>, Problem> {
    match site.stripe.read(&RetrieveProduct::new(id)).await {
        Ok(product) => Ok(Some(product)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Somebody else's product must not be renamed.
fn is_ours(site: &Site<'_>, product: &Product) -> Result<(), Problem> {
    if product.metadata.get(MARK) == Some(&site.config.prefix) {
        return Ok(());
    }
    let (id, prefix) = (product.id.as_str(), &site.config.prefix);
    Err(Problem(format!(
        "{id} is there and was not made by Weir; set another billing.prefix, or give it the metadata {MARK} = {prefix}"
    )))
}
